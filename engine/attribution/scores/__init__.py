"""The score matrix τ `[n_test, n_train]`: read exactly, one block at a time, never held whole.

`matrix.Scores` is the interface. It has three forms:

* `dense.DenseScores`: τ itself, in shards of test rows (TRAK by a dual solver, imported scores);
* `factors.FactorScores`: for each checkpoint the training features Φ and the test factors G of
  TRAK's primal solver, so that τ = Q̄ ⊙ mean(G Φᵀ);
* `sparse.SparseScores`: the few weights of a lasso datamodel that are not zero.

Importing this package imports neither torch nor SciPy.
"""
