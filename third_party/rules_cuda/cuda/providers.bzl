"""Providers of the CUDA rules."""

CudaInfo = provider(
    "What a CUDA target passes on to the CUDA targets that depend on it.",
    fields = {
        "defines": "depset of preprocessor definitions for device and host code",
        "objects": "depset of position-dependent objects (here the same as pic_objects)",
        "pic_objects": "depset of position-independent objects",
        "rdc_objects": "depset of relocatable device code objects, to be device-linked",
        "rdc_pic_objects": "depset of the position-independent ones (here the same as rdc_objects)",
    },
)

CudaArchsInfo = provider(
    "The architectures to generate code for.",
    fields = {
        "gencode": "list of nvcc's -gencode arguments; empty means nvcc's default",
    },
)

CudaToolchainInfo = provider(
    "A CUDA compiler.",
    fields = {
        "compiler_files": "depset of the files that nvcc reads and runs",
        "headers": "CcInfo of the toolkit's headers, for host code that includes them",
        "nvcc": "File: the compiler driver",
    },
)
