"""The build: stages that make the missing files of a study."""
