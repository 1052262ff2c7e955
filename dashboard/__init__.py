"""The dashboard: shows a study in a browser. It reads the store and computes nothing."""
