// Package secrets runs everything as separate processes and searches whatever they
// leave behind for each secret that they had: logs, audit lines, errors, answers,
// process lists and goroutine dumps.
package secrets
