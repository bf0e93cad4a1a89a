"""A package, so that the browser and the installation of its fixtures end with its last story: sync Playwright leaves its event loop
to the thread it was started in, and no `asyncio.run` of a later test works there.
"""
