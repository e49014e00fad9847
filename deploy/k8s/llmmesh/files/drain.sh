# Let this Envoy go: ready no more, every connection ends after its next reply, running streams finish.
#   drain.sh SETTLE_SECONDS DRAIN_SECONDS
admin() {
    exec 3<>"/dev/tcp/127.0.0.1/${ENVOY_ADMIN_PORT:-15000}"
    printf '%s %s HTTP/1.1\r\nhost: admin\r\ncontent-length: 0\r\nconnection: close\r\n\r\n' "$1" "$2" >&3
    cat <&3
    exec 3>&-
}
admin POST /healthcheck/fail
admin POST '/drain_listeners?graceful'
sleep "$1"
for ((second = 0; second < $2; second++)); do
    # The mesh too: a stream whose edge is another Envoy may pass through here between services. Streams of news stay open
    # at most until services open them afresh, elsewhere.
    admin GET '/stats?filter=downstream_rq_active' | grep -Eq '^http\.(edge|mesh)\.downstream_rq_active: [1-9]' || break
    sleep 1
done
