// What the package uses of Core ML, declared for type checking where the framework is not; predictions are played back.
import Foundation

public enum MLComputeUnits: Int, Sendable { case cpuOnly, cpuAndGPU, all, cpuAndNeuralEngine }
public enum MLMultiArrayDataType: Int { case float32, int32 }

public final class MLModelConfiguration {
    public var computeUnits = MLComputeUnits.all
    public init() {}
}

public final class MLMultiArray {
    private let dataType: MLMultiArrayDataType
    public let count: Int
    public let dataPointer: UnsafeMutableRawPointer

    public init(shape: [NSNumber], dataType: MLMultiArrayDataType) throws {
        self.dataType = dataType
        count = shape.reduce(1) { $0 * $1.intValue }
        dataPointer = .allocate(byteCount: max(4 * count, 4), alignment: 16)
    }

    deinit {
        dataPointer.deallocate()
    }

    public subscript(index: Int) -> NSNumber {
        dataType == .int32
            ? NSNumber(value: dataPointer.load(fromByteOffset: 4 * index, as: Int32.self))
            : NSNumber(value: dataPointer.load(fromByteOffset: 4 * index, as: Float.self))
    }
}

public final class MLFeatureValue {
    public let multiArrayValue: MLMultiArray?

    public init(multiArray: MLMultiArray) {
        multiArrayValue = multiArray
    }
}

public protocol MLFeatureProvider {
    func featureValue(for name: String) -> MLFeatureValue?
}

public final class MLDictionaryFeatureProvider: MLFeatureProvider {
    private let values: [String: MLFeatureValue]

    public init(dictionary: [String: Any]) throws {
        values = dictionary.compactMapValues { $0 as? MLFeatureValue }
    }

    public func featureValue(for name: String) -> MLFeatureValue? { values[name] }
}

public final class MLModel {
    private let model: RecordedModel

    public init(contentsOf url: URL, configuration: MLModelConfiguration) throws {
        model = try RecordedModel(url.path)
    }

    /// The true one gives a compiled copy, which the caller owns; this one a name of the model that is no file.
    public static func compileModel(at url: URL) async throws -> URL {
        url.deletingPathExtension().appendingPathExtension("mlmodelc")
    }

    public func prediction(from input: MLFeatureProvider) throws -> MLFeatureProvider {
        try MLDictionaryFeatureProvider(
            dictionary: model.next().mapValues { tensor in
                let type: MLMultiArrayDataType = tensor.dtype == "int32" ? .int32 : .float32
                let array = try MLMultiArray(shape: tensor.shape.map { NSNumber(value: $0) }, dataType: type)
                tensor.bytes.withUnsafeBytes { array.dataPointer.copyMemory(from: $0.baseAddress!, byteCount: $0.count) }
                return MLFeatureValue(multiArray: array)
            })
    }
}
