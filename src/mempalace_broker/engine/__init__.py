"""The engine child: runs in the interpreter that has the user's mempalace (Python 3.9 or newer)."""
