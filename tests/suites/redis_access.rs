//! ACL users, passwords, prefixes and databases.
