"""Search over the attribution space: FAISS indexes, similarity and maps."""
