// grpc-go with a handler that does nothing.
package main

import (
	"context"
	"log"
	"net"
	"os"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/emptypb"
)

// describeJob decodes three strings numbered 1 to 3, as DescribeJobRequest has them: ResourceInfo has the same shape on the
// wire, and spares us generated code. An empty DescribeJobResponse is an Empty.
func describeJob(_ any, _ context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
	request := new(errdetails.ResourceInfo)
	if err := decode(request); err != nil {
		return nil, err
	}
	return new(emptypb.Empty), nil
}

func main() {
	listener, err := net.Listen("tcp", os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	server := grpc.NewServer(grpc.MaxConcurrentStreams(200))
	server.RegisterService(&grpc.ServiceDesc{
		ServiceName: "glacier.jobs.v1.JobService",
		HandlerType: (*any)(nil),
		Methods:     []grpc.MethodDesc{{MethodName: "DescribeJob", Handler: describeJob}},
	}, struct{}{})
	log.Fatal(server.Serve(listener))
}
