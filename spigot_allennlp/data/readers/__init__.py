"""
Dataset readers: from files to instances.
"""
