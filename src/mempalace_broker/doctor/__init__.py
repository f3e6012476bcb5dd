"""`doctor`: facts are gathered in one place and judged in others, one file a subject."""
