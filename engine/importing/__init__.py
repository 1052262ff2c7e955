"""Score matrices made by other tools, brought into a study as methods of an algorithm.

A *reader* (one file a tool) finds the scores and says what it knows of them; `source` turns them
the study's way and checks them; `scores` writes them into the study, ranks and indexes them.
"""
