"""Pictures that stay where they are: a place for each, and a digest of its bytes.

place     where a picture lies, as one text, and its bytes
parquet   pictures inside of Parquet files, by row group and row
tar       WebDataset shards: where each member lies
survey    one reading of every picture: its digest and what its header tells
decoded   an array whose pictures are decoded when they are asked for
"""
