"""
The compiled BPF objects, one `NAME.bpf.o` per `bpf/NAME.bpf.c` of the sources.

They are CO-RE objects: compiled once, where pidtrail is built, and fitted to the
running kernel by libbpf when they are loaded.
"""
