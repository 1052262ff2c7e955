"""The command line.

    main         the parser, exit codes and error lines
    building     init, build, serve, demo
    explaining   explain, whatif
    evaluating   evaluate
    brittle      brittle
    comparing    compare, case-study
    unlearning   unlearn
    exchanging   import, methods, convert, doctor
    jobs         jobs

The verbs share `arguments`, `printing` and `progress`.
"""
