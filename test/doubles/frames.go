// SPDX-License-Identifier: Apache-2.0

package doubles

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"sync"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// Frames is a server that speaks HTTP/2 frame by frame, for what no HTTP server
// does by itself: GOAWAY in the middle, or streams that it resets.
type Frames struct {
	ln     net.Listener
	script func(*FrameConn)
	wg     sync.WaitGroup

	mu     sync.Mutex
	conns  map[net.Conn]struct{}
	closed bool
}

// FrameConn is one connection with a request on it, which has been read.
type FrameConn struct {
	Conn   net.Conn
	Framer *http2.Framer
	Stream uint32
}

// ServeFrames serves on ln with the certificates of cfg. The script is run for each
// request, one after the other on a connection, which stays until the client closes
// it, unless the script has closed it.
func ServeFrames(ln net.Listener, cfg *tls.Config, script func(*FrameConn)) *Frames {
	cfg = cfg.Clone()
	cfg.NextProtos = []string{"h2"}
	f := &Frames{ln: tls.NewListener(ln, cfg), script: script, conns: map[net.Conn]struct{}{}}
	f.wg.Add(1)
	go f.accept()
	return f
}

func (f *Frames) accept() {
	defer f.wg.Done()
	for {
		c, err := f.ln.Accept()
		if err != nil {
			return
		}
		f.mu.Lock()
		if f.closed {
			f.mu.Unlock()
			_ = c.Close()
			return
		}
		f.conns[c] = struct{}{}
		f.wg.Add(1)
		f.mu.Unlock()
		go func() {
			defer f.wg.Done()
			f.serve(c)
			_ = c.Close()
			f.mu.Lock()
			delete(f.conns, c)
			f.mu.Unlock()
		}()
	}
}

func (f *Frames) serve(c net.Conn) {
	preface := make([]byte, len(http2.ClientPreface))
	if _, err := io.ReadFull(c, preface); err != nil || string(preface) != http2.ClientPreface {
		return
	}
	fc := &FrameConn{Conn: c, Framer: http2.NewFramer(c, c)}
	if fc.Framer.WriteSettings() != nil {
		return
	}
	for fc.request() == nil { // reading on to the end, too: else what was written could be lost to a reset
		f.script(fc)
	}
}

// request reads frames up to the end of the next request.
func (c *FrameConn) request() error {
	for {
		fr, err := c.Framer.ReadFrame()
		if err != nil {
			return err
		}
		switch fr := fr.(type) {
		case *http2.SettingsFrame:
			if !fr.IsAck() {
				err = c.Framer.WriteSettingsAck()
			}
		case *http2.PingFrame:
			err = c.Framer.WritePing(true, fr.Data)
		case *http2.HeadersFrame:
			c.Stream = fr.StreamID
			if fr.StreamEnded() {
				return nil
			}
		case *http2.DataFrame:
			if fr.StreamEnded() {
				return nil
			}
		}
		if err != nil {
			return err
		}
	}
}

// Head sends the head of an answer.
func (c *FrameConn) Head(status int, contentType string) error {
	var b bytes.Buffer
	enc := hpack.NewEncoder(&b)
	for _, h := range []hpack.HeaderField{{Name: ":status", Value: fmt.Sprint(status)}, {Name: "content-type", Value: contentType}} {
		if err := enc.WriteField(h); err != nil {
			return err
		}
	}
	return c.Framer.WriteHeaders(http2.HeadersFrameParam{StreamID: c.Stream, BlockFragment: b.Bytes(), EndHeaders: true})
}

// Data sends a piece of the answer; end is its last one.
func (c *FrameConn) Data(s string, end bool) error {
	return c.Framer.WriteData(c.Stream, end, []byte(s))
}

// Close ends the server and every connection.
func (f *Frames) Close() error {
	err := f.ln.Close()
	f.mu.Lock()
	f.closed = true
	for c := range f.conns {
		_ = c.Close()
	}
	f.mu.Unlock()
	f.wg.Wait()
	return err
}
