// Package process builds programs of this module, starts them, waits for what they
// print, and ends them for certain: with their children, and when the program that
// started them dies. It is for Linux; elsewhere it only builds.
package process
