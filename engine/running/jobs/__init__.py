"""A queue of long-running work that survives the browser and the server that submitted it.

    number = submit(study, "build", {})
    job(study.root, number).seconds_left

A *job* is a row of a small database in the study, and runs in a separate process. One *runner*
process per study, independent of any server, runs jobs in order, one at a time, and monitors them.
It starts when there is work and exits when there is none.

Maintained embedded queues were considered first (huey 3.5, persist-queue 1.1, litequeue 0.9). They
store tasks and pass them to the workers of an application that is always running. huey can revoke a
waiting task, but none of them ends a running task with its children, none stores progress or a log,
and the first two pickle their tasks. Those features are most of this package.
"""
