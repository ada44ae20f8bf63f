"""
From instances to batches.
"""
