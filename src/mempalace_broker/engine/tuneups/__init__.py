"""Changes to the running mempalace, in memory: one file a subject, each change proves first that it fits.

    tuneup          what a tune-up is
    delete_fix      upstream bug #1710: a delete costs the search index
    read_caches     what is read or written again on every call
    read_often      what every version reads several times in each call
    each_call       what is done around every call
    capacity        the check of the index before each write, which reads the whole palace
    file_cache      answers that hold while files are unchanged
    chroma_writes   watches each write through Chroma
    drawer_rows     reads drawers from the database by SQL
    drawer_overview counts and lists of drawers, kept up to date by our own writes
    flat_reads      calls that count or sort all drawers
    index_storage   an index that survives a kill
    early_check     SQLite's check of the database, while mempalace is imported
    own_length      each text embedded at its own length
    mine_parts      other calls run while a file of a mine is embedded
    apply           applies all that fit and reports each

A mempalace whose functions look or behave otherwise runs as it is, and the report says why. No tune-up changes a
tool's answer. MEMPALACE_BROKER_TUNE=0 leaves all of them out.
"""
