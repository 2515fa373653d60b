"""The output folder of a reduction as data: ranking, selections, store, data set."""
