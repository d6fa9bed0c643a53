"""Files of datasets at addresses: https, S3 and Google Cloud Storage."""
