"""The measured Django projects: the same work, written for each as its documentation says."""
