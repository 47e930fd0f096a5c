"""An audit before and after go-live: settings, application, files of a deployment, host and live site."""
