//go:build tools

package tools
import (
 _ "github.com/cilium/ebpf/cmd/bpf2go"
 _ "github.com/landlock-lsm/go-landlock/landlock"
 _ "github.com/seccomp/libseccomp-golang"
 _ "github.com/vishvananda/netlink"
 _ "github.com/prometheus/client_golang/prometheus/promhttp"
 _ "github.com/miekg/dns"
 _ "github.com/spf13/cobra"
 _ "modernc.org/sqlite"
 _ "golang.org/x/sys/unix"
 _ "golang.org/x/net/http2"
 _ "golang.org/x/net/idna"
 _ "go.yaml.in/yaml/v3"
 _ "github.com/tidwall/gjson"
 _ "github.com/tidwall/sjson"
 _ "github.com/openai/openai-go/v3"
 _ "github.com/anthropics/anthropic-sdk-go"
 _ "golang.org/x/term"
 _ "golang.org/x/sync/errgroup"
 _ "github.com/creack/pty"
 _ "github.com/fsnotify/fsnotify"
 _ "honnef.co/go/tools/cmd/staticcheck"
 _ "software.sslmate.com/src/go-pkcs12"
 _ "github.com/cyphar/filepath-securejoin"
)
