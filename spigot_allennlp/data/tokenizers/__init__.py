"""
Tokenizers for text that is to be predicted.
"""
