"""Long work that outlives the browser, and the server, that asked for it.

    number = submit(study, "build", {})
    job(study, number).seconds_left

A *job* is a row of a small database in the study, and while it runs a process of its own. One
*runner*, a process that belongs to no server, takes jobs in order, one at a time, and watches them;
it is started when there is something to do and leaves when there is not.

Kept-up embedded queues were looked at first (huey 3.5, persist-queue 1.1, litequeue 0.9). They
store tasks and hand them to workers of an application that is always up; huey can revoke a task
that waits, but none ends a running one with its children, none keeps progress or a log, and the
first two pickle what they store. That is most of what is needed here, so this is our own thin one.
"""
