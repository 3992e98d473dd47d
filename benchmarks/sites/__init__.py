"""The two Django projects that are measured: the same work, written for each as its documentation says."""
