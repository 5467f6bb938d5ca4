"""What the deployments on one machine and on Ray share. It needs neither Ray nor PyYAML."""
