"""The build: stages that compute a study's missing files."""
