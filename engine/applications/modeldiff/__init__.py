"""ModelDiff (Shah, Park, Ilyas and Madry, 2023): what two learning algorithms do differently.

residuals        distinguishing directions in the space of training examples
significance     which of them are more than chance in training
account          what a direction is: training examples, test examples, both models on them
transformations  changes of pictures to test a hypothesis with
hypothesis       what a transformation does to the predictions of both
compare          all of it for two algorithms of a study, kept with it
notes            names and notes that people give to directions
report_file      all that was found, to take away
job              the same as a job, an uploaded model's scores first
"""
