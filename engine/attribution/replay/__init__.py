"""Replay: the exact derivative of model outputs by the weight of each training example.

    recording = Recording(training, bytes_for_states)
    recording.run()                                    # trains
    scores = walk_back(recording, adjoints_of(...))    # [queries, n_train]

DESIGN section 5, *Replay*. Fix the initial weights, the order of the examples and all randomness,
and give every training example a weight w in the loss of its batches:

    loss of a batch = Σ w_i loss_i / Σ w_i          (at w = 1: the mean, as in training)

That is the loss of the batch without example i at w_i = 0: training takes the mean over the
examples that are there. The score of example i for an output f of the trained model is ∂f/∂w_i at
w = 1, in the unit of f: without a small set S of examples f changes by about −Σ_S of the scores.
Positive supports.

What a weight does not reach: a batch keeps its other examples (removing one in earnest moves those
of later batches up), and its statistics in BatchNorm layers count every example once.
"""
