// What the package uses of Core ML, declared for type checking where the framework is not.
import Foundation

public enum MLComputeUnits: Int, Sendable { case cpuOnly, cpuAndGPU, all, cpuAndNeuralEngine }
public enum MLMultiArrayDataType: Int { case float32, int32 }
public final class MLModelConfiguration {
    public var computeUnits = MLComputeUnits.all
    public init() {}
}
public final class MLMultiArray {
    public init(shape: [NSNumber], dataType: MLMultiArrayDataType) throws {}
    public var dataPointer: UnsafeMutableRawPointer { fatalError() }
    public var count: Int { 0 }
    public subscript(index: Int) -> NSNumber { 0 }
}
public final class MLFeatureValue {
    public init(multiArray: MLMultiArray) {}
    public var multiArrayValue: MLMultiArray? { nil }
}
public protocol MLFeatureProvider {
    func featureValue(for name: String) -> MLFeatureValue?
}
public final class MLDictionaryFeatureProvider: MLFeatureProvider {
    public init(dictionary: [String: Any]) throws {}
    public func featureValue(for name: String) -> MLFeatureValue? { nil }
}
public final class MLModel {
    public init(contentsOf url: URL, configuration: MLModelConfiguration) throws {}
    public static func compileModel(at url: URL) throws -> URL { url }
    public func prediction(from input: MLFeatureProvider) throws -> MLFeatureProvider { input }
}
