"""Search: the attribution space and its FAISS index, nearest neighbors, and maps."""
