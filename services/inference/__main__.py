"""`python -m services.inference`."""

from meshkit.run import serve
from services.inference.app import inference
from services.inference.config import InferenceConfig

if __name__ == "__main__":
    serve("inference", InferenceConfig, inference)
