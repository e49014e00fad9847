"""The guard: may this be said, in or out, and what kind of data is it?"""
