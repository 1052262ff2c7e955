"""What a curator asks of the training set: which labels look wrong, which examples hurt."""
