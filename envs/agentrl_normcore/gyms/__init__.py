"""The gyms that come with the package, each a folder as a third party's would be."""
