// Package socket listens on Unix sockets that other programs of the device know by
// their path.
//
// A socket file is only removed if nobody answers on it: two agents with one path
// would otherwise take turns, and a path with a typing error might be a database's.
//
// The socket's mode is set before bind where the system can do that (Linux): between
// bind and chmod everybody whom the umask admits could connect.
package socket

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"sync"
	"time"
)

// askTime is for whoever listens already to take a connection.
const askTime = 10 * time.Second

// ErrInUse: another program listens there.
var ErrInUse = errors.New("another program listens there, perhaps another agent; stop it, or name another path")

// Listen listens at path, in place of a socket that nobody listens on. Close
// removes it.
func Listen(ctx context.Context, path string, mode fs.FileMode) (net.Listener, error) {
	switch info, err := os.Lstat(path); {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, err
	case !isSocket(info):
		return nil, errors.New("there is a file that is no socket; name another path, or remove it")
	default:
		d := net.Dialer{Timeout: askTime}
		c, err := d.DialContext(ctx, "unix", path)
		if err == nil {
			c.Close()
			return nil, ErrInUse
		}
		if !Nobody(err) {
			return nil, fmt.Errorf("there is a socket, and whether it is in use cannot be seen: %w", err)
		}
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("remove the socket that nobody listens on: %w", err)
		}
	}
	lc := net.ListenConfig{Control: modeBeforeBind(mode)}
	ln, err := lc.Listen(ctx, "unix", path)
	if err != nil {
		return nil, err
	}
	l := &listener{UnixListener: ln.(*net.UnixListener), path: path}
	l.SetUnlinkOnClose(false) // Close knows better whose it is
	if err := os.Chmod(path, mode); err != nil {
		l.Close()
		return nil, err
	}
	l.info, _ = os.Lstat(path)
	return l, nil
}

// Nobody says whether a dial failed because nobody listens on the socket.
func Nobody(err error) bool { return errors.Is(err, errNobody) }

// listener removes its socket.
type listener struct {
	*net.UnixListener
	path string
	info fs.FileInfo
	once sync.Once
}

func (l *listener) Close() error {
	l.once.Do(func() {
		// While it listens nobody takes the path for a dead one, so what is there is
		// ours, unless somebody removed it by hand.
		if info, err := os.Lstat(l.path); err == nil && (l.info == nil || os.SameFile(info, l.info)) {
			os.Remove(l.path)
		}
	})
	return l.UnixListener.Close()
}
