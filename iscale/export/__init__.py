"""A run in the formats of other tools: AnnData, SpatialData, OME-Zarr, OME-TIFF, Parquet, the published pickles."""
