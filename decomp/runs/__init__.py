"""Work that can be interrupted: runs, their manifests and parts, status, cost."""
