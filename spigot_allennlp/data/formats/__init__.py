"""
File formats: what parses and writes them, without AllenNLP's instances.
"""
