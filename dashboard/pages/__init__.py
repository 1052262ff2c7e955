"""The pages, one file each, read from top to bottom like the page.

The folder must not be called `pages`: Streamlit would take a folder of that name beside app.py for
an app of its older kind, and until app.py has run once it would show what an address asks for
without app.py, which asks who is there.
"""
