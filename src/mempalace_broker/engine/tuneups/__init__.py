"""Changes to the running mempalace, in memory: one file a subject, each change proves first that it fits.

    tuneup          what a tune-up is
    delete_fix      upstream bug #1710: a delete costs the search index
    read_caches     what is read or written again on every call
    read_often      what every version reads several times in each call
    capacity        the check of the index before each write, which reads the whole palace
    file_cache      answers that hold while files are unchanged
    chroma_writes   hears of each write through Chroma
    drawer_rows     what the database says of drawers
    drawer_overview counts and lists of drawers that our own writes correct
    flat_reads      what counts or sorts all drawers to answer
    index_storage   an index that survives a kill
    own_length      each text embedded at its own length
    apply           applies all that fit and reports each

A mempalace whose functions look or behave otherwise runs as it is, and the report says why. No tune-up changes a
tool's answer. MEMPALACE_BROKER_TUNE=0 leaves all of them out.
"""
