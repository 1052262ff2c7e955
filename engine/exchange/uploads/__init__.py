"""Models that users upload for comparison. They are treated as hostile until they pass every check.

header    parse the header of a safetensors file before anything is allocated
match     find the architecture with the same tensor names and shapes
trial     load and run the model in a process with limited memory and time
room      reserve disk space within the quota
keeping   accept, rename, delete and expire uploads
report    accuracy of an upload, and its differences from the study's model
"""
