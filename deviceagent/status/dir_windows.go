package status

import "io/fs"

// ownedByUs leaves that to the folder's ACL.
func ownedByUs(fs.FileInfo) bool { return true }

func inUse(error) bool { return false } // of sockets without a file, which are not there
