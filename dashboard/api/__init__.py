"""The same answers as the pages', as JSON for programs: `/api/explain?test=17&k=10`.

`table` lists every view with its parameters and its answer. The routes, the OpenAPI document, the
page at `/api` and the tools of the MCP server are all made from it.
"""
