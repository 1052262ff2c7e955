"""The pages, one file each, in the order of the page from top to bottom.

The folder must not be called `pages`: Streamlit treats a folder of that name next to app.py as a
multipage app of the older kind. Until app.py has run once, it would then serve the page of a URL
without app.py, which checks the login.
"""
