"""The engine child: runs the user's mempalace in the user's interpreter (Python 3.9 or newer).

The broker starts `worker`; `adapter` alone imports mempalace; `tuneups` changes it in memory.
"""
