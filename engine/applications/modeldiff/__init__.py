"""ModelDiff (Shah, Park, Ilyas and Madry, 2023): differences between two learning algorithms.

residuals        distinguishing directions in the space of training examples
significance     which of them exceed the chance of training
chance           A and B imitated as one algorithm: what chance alone does
account          description of a direction: its training and test examples, both models on them
transformations  changes of pictures that test a hypothesis
hypothesis       effect of a transformation on the predictions of both
comparison       the whole comparison of two algorithms, kept in their study
notes            names and notes that people give to directions
report_file      the results as files to download
job              the comparison as a job; computes an uploaded model's scores first
"""
